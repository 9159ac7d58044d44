"""Worker processes that carry out queued runs, and the supervisor that manages them."""
