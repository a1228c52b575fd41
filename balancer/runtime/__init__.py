"""What surrounds a process: its folder, tasks, threads, descriptors and clock, the stages of its life, and systemd."""
