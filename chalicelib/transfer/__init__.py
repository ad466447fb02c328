"""Moving in and out: the index as lines of JSON, and what others know of hosts and repos as a beginning.

tables --exporting--> lines --importing--> empty tables
others' lists --seeding--> asked for, then crawled and verified like all else
"""
