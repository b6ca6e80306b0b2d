"""The life of a job: pure steps from what is known to what is to be done."""
