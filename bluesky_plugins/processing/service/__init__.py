"""The processor: reads what is over, stores jobs, drives them, publishes what came of them."""
