def test_try(served):
    r = served.get("/studies"); print(r.status_code, r.headers, r.text)
    r = served.get("/instances", includefield="all", PatientName="*mull*", fuzzymatching="true"); print(r.status_code, r.headers, r.text)
    r = served.get("/studies/1.2.826.0.1.3680043.10.1555.1"); print(r.status_code, r.headers, len(r.content))
    r = served.get("/studies/1.2.826.0.1.3680043.10.1555.1/metadata"); print(r.status_code, r.headers, r.text)
    r = served.get("/studies/1.2.826.0.1.3680043.10.1555.1/series/1.2.826.0.1.3680043.10.1555.1.1/instances/1.2.826.0.1.3680043.10.1555.1.1.2/frames/1,3"); print(r.status_code, r.headers, r.content)
