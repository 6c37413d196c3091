"""What a run is measured with: time, memory, energy, and the machine it ran on."""
