"""What a page says after a form was sent: named in the address that it goes on to, so that nobody can put his own
words there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shelver.service.pages.locales import mark

NOTICES: Final[Mapping[str, str]] = {
    "signed-out": mark("You have signed out."),
    "registered": mark("Welcome. Your account is ready."),
    "listing-saved": mark("The listing is saved."),
    "listing-deleted": mark("The listing is deleted."),
    "feed-deleted": mark("The file is deleted."),
    "import-cancelled": mark("The import will stop."),
    "judged": mark("Thank you. Your judgement is kept."),
    "listing-proposed": mark("The model has proposed a category. Take it, or choose another."),
    "job-cancelled": mark("The job will stop, or has been taken out of the queue."),
    "password-set": mark("Your password is set. Sign in with it."),
    "password-changed": mark("Your password is changed. All other sign-ins have ended."),
    "renamed": mark("Your name is changed."),
    "sign-ins-ended": mark("All other sign-ins have ended."),
    "account-deleted": mark("Your account is deleted."),
    "role-changed": mark("The role is changed. The person signs in again with it."),
    "user-disabled": mark("The account is disabled, and all its sign-ins have ended."),
    "user-enabled": mark("The account is enabled again."),
    "user-signed-out": mark("All sign-ins of this account have ended."),
    "key-revoked": mark("The key has ended. Whoever uses it is refused from now on."),
    "key-made-before": mark(
        "This key was made already, and cannot be shown again. If you have not copied it, end it, and make "
        "another."
    ),
    "training-started": mark("The training is in the queue."),
    "model-registered": mark("The model is registered. It answers nobody yet."),
    "model-promoted": mark("This model answers now."),
    "model-rolled-back": mark("The previous model answers again."),
    "model-no-previous": mark("No model answered before this one, so there is nothing to roll back to."),
    "model-not-named": mark("Choose a folder to register."),
    "preferences": mark("Your choice is kept in this browser."),
    "policy-saved": mark("Saved. The policy decides so from now on."),
    "policy-reset": mark("The policy that came with the model decides again."),
    "policy-deleted": mark("The policy is deleted."),
}
"""By the value of `done` in the address."""
