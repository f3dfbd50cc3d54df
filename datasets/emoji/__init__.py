"""The embedded world of drawn concepts: 1,006 of OpenMoji's drawings, scenes of them, and their names."""
