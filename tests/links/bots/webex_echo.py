"""A webex_bot as its README shows it: one command, which echoes. The token is in WEBEX_TOKEN."""

import os

from webex_bot.models.command import Command
from webex_bot.webex_bot import WebexBot


class Echo(Command):
    def __init__(self):
        super().__init__(command_keyword="echo", help_message="says it again", card=None)

    def execute(self, message, attachment_actions, activity):
        return "echo:" + message.strip()


bot = WebexBot(teams_bot_token=os.environ["WEBEX_TOKEN"], bot_name="Echo")
bot.add_command(Echo())
bot.run()
