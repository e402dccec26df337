"""Logs in and lists endpoints through the official emnify SDK; exits with an error unless all is as expected."""

import os
import sys

from emnify import EMnify
from emnify.errors import UnauthorisedException

expected = os.environ["EXPECTED"]
# The SDK read EMNIFY_SDK_API_ENDPOINT_URL when it was imported; without it, it would ask the real API.
if not os.environ.get("EMNIFY_SDK_API_ENDPOINT_URL", "").startswith("http://127.0.0.1:"):
    sys.exit("EMNIFY_SDK_API_ENDPOINT_URL must name a sandbox on 127.0.0.1")

try:
    devices = list(EMnify(os.environ["EMNIFY_APPLICATION_TOKEN"]).devices.get_devices_list())
except UnauthorisedException:
    if expected != "refused":
        sys.exit("the SDK was refused")
    sys.exit(0)

if expected == "refused":
    sys.exit("the SDK was let in")
if len(devices) != int(expected):
    sys.exit(f"{len(devices)} endpoints instead of {expected}")
if len({device.id for device in devices}) != len(devices):
    sys.exit("an endpoint came twice")
for device in devices:
    if not (device.name and device.status.id == 0 and device.service_profile.id and device.tariff_profile.id):
        sys.exit(f"an endpoint lacks a field: {device.id}")
