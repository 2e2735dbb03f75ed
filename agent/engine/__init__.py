"""Facts and a plan become a step; the step is carried out and proved."""
