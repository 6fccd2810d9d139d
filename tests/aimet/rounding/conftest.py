from deploy_fixtures import images, one_thread  # noqa: F401
