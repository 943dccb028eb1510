"""The web application: pages that sellers, reviewers and administrators use, at the same address as the API.

Rendered here, from `templates/` and the words of `locales/`; `static/` has the style sheet and small scripts,
which call the API as anybody does. A page works without them where its job allows: a form is sent, and answered
with a redirect to what it changed. Nothing comes from elsewhere.

render.py     a template as the answer to a request
locales.py    words, numbers and times in the reader's language
session.py    the cookie of who has signed in; where a browser may be sent
problem.py    a refusal as a page
navigation.py where each role goes
static.py     the files of `static/`
home.py       the first page, and the choice of language and theme
accounts.py   register, sign in and out
issuer.py     sign in through OpenID Connect
tokens.py     a forgotten password, the first administrator
account.py    my account: password, sign-ins, my data, the end of it
users.py, keys.py, audit.py
              people, keys of machines, who changed what
jobs.py       what waits, what is at work, what came of it
dashboard.py  traffic, latency, quality
models.py     which models there are; promote, roll back, register
training.py   the form that starts a training
charts.py     where the lines and bars of a chart stand
review.py     what waits for a reviewer, one by one, in a table, or in groups
policies.py   what each policy decides, and what another target would change
taxonomy.py   the tree with what is counted at each node, down to the products
picker.py     choosing a category, on any page
sell.py       a title and pictures become a listing; sell_form, sell_saving, sell_why, sell_problems are its parts
listings.py   one's own listings: search, change, delete; listing_form is the form
feeds.py      a file becomes listings: its columns, the import, what was refused; feed_words are the reasons
log.py        answers of the model, and what people said of them
"""
