"""Audio models in real browsers, with onnxruntime-web: measured there, stored as records like any other platform's.

::

    families ─ export ──> ONNX file, inputs, outputs of native onnxruntime ─┐
    parts ──> onnxruntime-web                                               ├─> server ──> page (bench.js) in a browser
    page/ ──> the measuring page                                            ┘                │ answers
                                                              labels: is it what was asked for? ──> record

Nothing is loaded by importing this. How it works: docs/web.md.
"""
