from prefect import flow


@flow(name="nightly_archive")
def nightly_archive():
    """x"""
