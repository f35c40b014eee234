"""The conformance suite as a step of other tests, which need only a part of it."""

# For the environment of a `lab` that runs it: without the tests of the shared protocol code, whose outcome is that of
# every model. The suite itself runs whole.
MODEL_TESTS_ONLY = {"PYTEST_ADDOPTS": "-m 'not once'"}
