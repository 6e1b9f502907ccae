"""Every setting once: its name, kind, default, and the INI files that give it."""
