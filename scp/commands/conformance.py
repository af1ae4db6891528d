"""`conformance`: the DICOM conformance statement."""

import typer

from scp.commands.application import Config, Data, app, load_configuration


@app.command()
def conformance(config: Config = None, data: Data = None) -> None:
    """Print the DICOM conformance statement (PS3.2 Annex N) of the configuration in force, in Markdown."""
    from scp.conformance.statement import statement

    typer.echo(statement(load_configuration(config, data)), nl=False)
