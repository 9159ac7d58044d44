"""Who carries out queued runs: the supervisor in the app and the worker processes."""
