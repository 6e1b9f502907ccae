"""From files to checked arrays that know their calibration."""
