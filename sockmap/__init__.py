"""BPF programs, their maps and their life: compile, probe, attach, detach. Knows no L7."""
