"""Rows that an earlier version wrote are read as they are."""

from budcluster.cluster.schemas import AdoptionReport


def test_a_report_from_before_add_ons_and_rights_were_told_is_shown() -> None:
    shown = AdoptionReport.model_validate(
        {
            "kubernetes": "v1.36.2",
            "nodes": 5,
            "architectures": ["amd64"],
            "container_runtimes": ["containerd://2.2.1"],
            "default_storage_class": None,
            "storage_classes": [],
            "access": {"role": "cluster-admin", "why": "installing operators needs every permission"},
            "warnings": [],
        }
    )
    assert (shown.addons, shown.access.may) == ([], [])
