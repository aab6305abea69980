"""The machines that a sweep runs on: how it joins them, and which of them do."""
