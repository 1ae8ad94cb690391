from prefect import flow


@flow(name="print_disc")
def print_disc():
    """x"""
