"""`l2overlay schema`: the JSON Schema of peers.toml, for editors. The output is the same with and without `--json`."""

import argparse
import json

from l2overlay.cli import output
from l2overlay.config.read import json_schema

EXAMPLES = ("l2overlay schema > peers.schema.json",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    del args
    print(json.dumps(json_schema(), indent=2))
    return 0
