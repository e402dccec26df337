#!/usr/bin/env bash
# Ten seconds of malformed streams from a peer that reads nothing and comes back: prints by how much the process grew.
exec "$(dirname "${BASH_SOURCE[0]}")/besieged.sh" cli::besieged::errors_that_are_never_read
