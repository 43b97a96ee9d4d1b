"""Whether the account lets as many functions run at once as the template reserves, asked before anything is built.

Says nothing where it does, and stops nobody: what the account has is only known where one may ask for it.

    tools/account.py <answers>      the file in which `make deploy` keeps what it was told
"""

import sys
import tomllib
from pathlib import Path

import boto3
import botocore.exceptions
from samcli.cli.types import CfnParameterOverridesType
from samcli.yamlhelper import yaml_parse

# Lambda keeps so many for functions without a reservation.
UNRESERVED = 100


def main():
    with open(sys.argv[1], "rb") as file:
        default = tomllib.load(file)["default"]
    settings = default.get("global", {}).get("parameters", {}) | default["deploy"]["parameters"]
    answers = CfnParameterOverridesType().convert([settings["parameter_overrides"]], None, None)
    if answers.get("ReserveConcurrency") == "false":
        return
    template = yaml_parse((Path(__file__).parent.parent / "template.yaml").read_text())
    needed = {size: sum(map(int, copies.values())) + UNRESERVED for size, copies in template["Mappings"]["Copies"].items()}
    # Nothing has been answered yet: whatever it will be.
    if "Size" in answers:
        needed = {answers["Size"]: needed[answers["Size"]]}
    try:
        session = boto3.Session(profile_name=settings.get("profile"))
        region = settings.get("region") or session.region_name or "us-east-1"
        client = session.client("lambda", region_name=region)
        limit = client.get_account_settings()["AccountLimit"]["ConcurrentExecutions"]
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        print(f"How many functions the account may run at once could not be asked ({error}).", file=sys.stderr)
        return
    too_many = [f"{size} takes {count}" for size, count in needed.items() if limit < count]
    if too_many:
        print(
            f"The account may run {limit} functions at once in {region}, and {', '.join(too_many)}. Either answer false at\n"
            "ReserveConcurrency: the account's limit then protects the database. Or ask for more first:\n"
            f"  aws service-quotas request-service-quota-increase --region {region} --service-code lambda \\\n"
            f"    --quota-code L-B99A9384 --desired-value {max(1000, *needed.values())}",
            file=sys.stderr,
        )


main()
