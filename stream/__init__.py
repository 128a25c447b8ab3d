"""The live app: sources, detection, tracking, annotation, WebRTC. Never imports torch."""
