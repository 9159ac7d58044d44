"""What every other room builds on: setting fields, paths, small files, processes and devices."""
