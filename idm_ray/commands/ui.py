"""``idm-ray ui``: MLflow's pages on the runs of our sweeps."""

import socket

import rich_click as click

from idm_ray.commands.arguments import OUTPUT_DIR
from idm_ray.errors import UserError
from idm_ray.sweep.folders import output_here
from idm_ray.sweep.tracking.ui import HOST, PORT, default_uri, is_remote, server, stored_page


@click.command("ui")
@click.option("--output-dir", default=str(OUTPUT_DIR), help="of all sweeps (default runs)")
@click.option("--tracking-uri", metavar="URI", help="another store than the one in the output folder")
@click.option("--port", type=click.IntRange(1, 65535), default=PORT, help=f"on this machine (default {PORT})")
def command(output_dir: str, tracking_uri: str | None, port: int) -> None:
    """Look at all trials in MLflow: their settings, curves, images and condensed sets.

    Prints the address to open, then serves it until Ctrl-C. Only this machine can reach it.

    \b
    idm-ray ui
    idm-ray ui --output-dir /data/runs --port 5001
    """
    uri = tracking_uri or default_uri(output_dir)[0]
    if is_remote(uri):
        print(f"open {stored_page(uri)}")
        return
    if tracking_uri is None and not output_here(output_dir).is_dir():
        raise UserError(f"there is no sweep in {output_dir} yet; --output-dir says where they are")
    _check_port(port)
    print(f"in a few seconds open {stored_page(uri, port)}", flush=True)
    server(uri, port).run()


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} cannot be used ({error.strerror}); choose another with --port"
            ) from None
