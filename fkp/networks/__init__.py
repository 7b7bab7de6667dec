"""The networks, in torch: what they are made of, their codecs, and the ONNX files made of them."""
