"""The model server: two V2 models on KServe's SDK, in one process, from one model folder.

`artifact` verifies the folder, `predictor` scores, `reader` gets features from Postgres, `serving` answers requests,
`models` and `edge` are the transports (SDK and gRPC; the quick HTTP route), `storage` brings the folder here.
"""
