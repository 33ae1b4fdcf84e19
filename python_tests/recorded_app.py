"""The example's app, with a record of each round beside the server's state: test_flower_processes.py's."""

from fair_digits import server_app

from cgsv_ext import RewardServer, _files


class RecordedServer(RewardServer):
    """Writes down who was to get what, before anybody hears of it."""

    def __init__(self, *args, path, **settings):
        super().__init__(*args, path=path, **settings)
        self.on_round(lambda record: self.write(path.parent, record))

    def write(self, folder, record):
        values = [record.agents, record.quotas, record.importance, self.aggregate]
        _files.write(folder / f"round-{record.round}", values)


server_app.RewardServer = RecordedServer
app = server_app.app
