"""The model server: two V2 models on KServe's SDK, in one process, from one model folder.

`artifact` verifies the folder, `predictor` scores, `reader` gets features from Postgres, `serving` answers requests,
those that wait together at once (`gathering`). `models` and `edge` are the transports (SDK and gRPC; the quick HTTP
route), `listening` puts them on an address, `storage` brings the folder here.
"""
