def test_a(open_page):
    t=open_page("pages/train/try_it.py")
    print("DBG", t.title[0].value, [e.type for e in t.main], t.exception)
    t.run()
    print("DBG", t.title[0].value, [e.type for e in t.main], t.exception)
