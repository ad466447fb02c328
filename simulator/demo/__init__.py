"""The service without internet, as a story: ``python -m simulator.demo``, or ``make demo``.

    neighbourhood    simulated holds, a PDS with users and a PLC directory, in this process
    stack            ``python -m infra.local``, as ``make run`` starts it, with a state folder of its own
    story            what happens, step by step; each step's result is checked against the neighbourhood's truth

The only part of the simulator that knows the service: it starts it, asks it over HTTP, and reads the tables that it leaves.
"""
