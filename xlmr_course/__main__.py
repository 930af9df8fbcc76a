"""`python -m xlmr_course …`: the same commands as `make …` and `xlmr-course …`, on every system."""

from xlmr_course.cli import main

main()
