from pathlib import Path

import pytest

from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.db.files import refuse_network_file

pytestmark = pytest.mark.req("SR-003")

MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
//office/share /mnt/our\\040files cifs rw 0 0
"""


@pytest.mark.parametrize("path", ["/home/ann/nexus.db", "/mnt/our files/nexus.db"])
def test_a_file_on_a_network_is_refused_with_the_remedy(path):
    with pytest.raises(ConfigurationError, match=r"network file system .* local disk, or PostgreSQL") as caught:
        refuse_network_file(Path(path), MOUNTS)
    assert path in str(caught.value)


@pytest.mark.parametrize("path", ["/var/nexus.db", "/home/local/nexus.db", "/homeless/nexus.db"])
def test_a_file_on_a_local_disk_is_accepted(path):
    refuse_network_file(Path(path), MOUNTS)


def test_a_system_without_a_mount_table_refuses_nothing():
    refuse_network_file(Path("/home/ann/nexus.db"), "")


def test_this_machine_is_asked_by_default(tmp_path):
    refuse_network_file(tmp_path / "nexus.db")
