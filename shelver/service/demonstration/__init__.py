"""The demo's installation: a shop that has been at work for some weeks, for `shelver demo --serve`.

cast.py      who is there: sellers, reviewers, an administrator, a machine; their passwords
calendar.py  when somebody asks: days with weekends, hours, a nightly feed
visits.py    one visit: a listing is asked about by the real functions, and what its seller makes of it
weeks.py     the weeks one after the other: two models, sellers, reviewers
work.py      jobs that its people have started
shop.py      prepare: all of it, once
"""
