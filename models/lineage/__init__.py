"""The detectors of CS231n's lecture on localization and detection (2016), one file a system or an idea.

Knows what ``models`` knows; every system keeps the interface of :class:`models.detector.Detector`.
"""
