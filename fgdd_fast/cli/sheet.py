import click


@click.command()
def sheet():
    pass
