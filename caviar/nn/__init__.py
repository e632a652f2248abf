"""The maths of the network, free of files, processes and databases.

Shape letters, on every line: **H** units of the layer, **D** units of the layer below (input features at the bottom),
**C** classes, **M** examples in the mini-batch, **N** examples of the set, **P** parameters of the model, **U** hidden
units of all layers together. Activations are (H, M), as in the lectures: an example is a column.
"""
