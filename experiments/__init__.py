"""Studies that test what publications claim; they run from a checkout and are no part of the installed package."""
