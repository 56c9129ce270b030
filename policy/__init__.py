"""The rule language: values and functions, no I/O, no clock."""
