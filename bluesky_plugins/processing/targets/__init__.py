"""Where jobs run: this machine and Slurm, behind one port, and how their hosts are reached."""
