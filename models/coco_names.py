"""The class names of COCO 2017 (arXiv 1405.0312), in the two orders that its detectors number them."""

_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe,
backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork,
knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake,
chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
"""

COCO_NAMES = tuple(name.strip() for name in _NAMES.replace("\n", " ").split(","))
"""The 80 classes without gaps."""

_UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}

_names = iter(COCO_NAMES)
COCO_CATEGORIES = (
    "background",
    *("N/A" if category in _UNUSED_IDS else next(_names) for category in range(1, 91)),
)
"""By the category numbers of its files, 1-90 with gaps: 91 names, of which the first is no object."""
