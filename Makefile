# make setup   the virtual environment and everything in it (add EXTRAS= for the live app alone)
# make demo    set up, then watch a real clip in a browser: open the address it prints
# make test    set up, then lint, types and every test but the slow ones, which are
# make test-slow   exports of large networks, bad networks, other browsers, the benchmarks themselves
# make bench   set up, then every benchmark but the long ones, which are
# make bench-long   what shows only after a quarter of an hour,
# make soak         two hours of a real app with cameras and viewers that come and go (SOAK_SECONDS=600 for less),
# make swap         two minutes of a detector whose model is exchanged again and again while four browsers watch
# make flapping     ten minutes of eight cameras of which three die all the time

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= train,test,plots
PORT ?= 8000
SOAK_SECONDS ?= 7200
FLAPPING_SECONDS ?= 300
SWAP_MODELS ?= lookout-nano ../shared/models/yolox_nano.onnx

BIN := $(VENV)/bin
comma := ,
# Python compiles a module when it first imports it, where pip would compile all of torch (a minute more), and keeps
# that, whatever the environment says: the tests start it dozens of times.
unexport PYTHONDONTWRITEBYTECODE

# One stamp per set of extras: the demo does not need torch, which is gigabytes where there is a GPU.
STAMP = $(VENV)/.installed-$(or $(subst $(comma),-,$(EXTRAS)),app)
DEBIAN := chromium coturn firefox-esr gir1.2-gst-plugins-bad-1.0 gir1.2-gst-rtsp-server-1.0 gstreamer1.0-nice \
	gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly \
	gstreamer1.0-libav \
	libgirepository1.0-dev libcairo2-dev pkg-config gcc python3-dev

.PHONY: setup debian demo test test-slow lint together alone bench bench-long soak flapping swap clean

setup: $(STAMP)

# TrackEval asks for an OpenCV that would overwrite ours, but does not need it for what we ask of it.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(findstring test,$(EXTRAS)),$(MAKE) --no-print-directory debian)
	$(BIN)/pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt -e '.$(if $(EXTRAS),[$(EXTRAS)])'
	$(if $(findstring test,$(EXTRAS)),$(BIN)/pip install --no-compile --quiet --disable-pip-version-check --no-deps -c constraints.txt trackeval)
	touch $@

# The tests want real browsers, a real RTSP server and other WebRTC clients. Where apt is not there, they say what they miss.
debian:
	@command -v apt-get >/dev/null || { echo "no apt-get here: install Chromium, Firefox and GStreamer with its RTSP server and webrtcbin yourself"; exit 0; }; \
	missing=$$(for package in $(DEBIAN); do dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || echo $$package; done); \
	test -z "$$missing" && exit 0; \
	echo "installing from Debian:" $$missing; \
	run=$$(test "$$(id -u)" = 0 || command -v sudo); \
	$$run apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -qq --no-install-recommends $$missing >/dev/null

demo:
	$(MAKE) --no-print-directory setup EXTRAS=
	$(BIN)/lookout watch demo --port $(PORT)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What only computes, or waits for as long as it takes, takes every core; browsers and what measures time run one by one.
TOGETHER := tests/export tests/models tests/faults tests/test_arrows.py $(addprefix tests/stream/test_,$(addsuffix .py,\
	allowed annotate assemble barcode batching bench_precision camera_motion collect config config_edit detector encode errors evaluate images label latest \
	limits live_config live_detectors logs memory metrics offline progress references regions resume rtp seek sei server session sources \
	sources_clock sources_gstreamer sources_network track_feed tracking tracking_mot tracking_reference udp))

# Types take one core, so they are checked beside the first tests.
test: setup
	$(MAKE) --no-print-directory -j2 lint together
	$(MAKE) --no-print-directory alone

# One thread each, or the threads of all of them would wait for each other by spinning.
together: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'not slow' -n logical --maxprocesses 8 --dist worksteal $(TOGETHER)

alone: setup
	$(BIN)/pytest -m 'not slow' $(addprefix --ignore ,$(TOGETHER))

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow --timeout 600 -n logical --maxprocesses 8 --dist worksteal $(TOGETHER)
	$(BIN)/pytest -m slow $(addprefix --ignore ,$(TOGETHER))

bench: setup
	@for which in pipeline latency viewers boxes; do $(BIN)/lookout bench $$which || exit 1; done

# What shows only after a while: ten minutes of overload, a thousand viewers.
bench-long: setup
	@for which in growth joins; do $(BIN)/lookout bench $$which || exit 1; done

# They leave what they saw in runs/.
soak: setup
	$(BIN)/python -m tests.benchmarks.soak --seconds $(SOAK_SECONDS)

flapping: setup
	$(BIN)/python -m tests.benchmarks.flapping --seconds $(FLAPPING_SECONDS)

swap: setup
	$(BIN)/python -m tests.benchmarks.swap --models $(SWAP_MODELS)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
