from deploy_fixtures import exported, images, one_thread, quiet_aimet  # noqa: F401
