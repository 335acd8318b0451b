"""The node's view of the local platform: an asyncio client that makes, watches and ends Pods.

    platform = Platform(layout, PlatformSettings())
    await platform.start()                       # finds the running spawner or starts one; adopts running Pods
    async for event in platform.events(): ...    # PodChanged(state) | PodGone(uid); first one per adopted Pod
    state = await platform.create(PodSandbox(...))   # returns when the Pod's network is up: state.ip, state.pid
    await platform.restart(uid, "reviews")
    await platform.delete(uid, grace_s=10)       # applications stop first, then the proxy drains
    await platform.services((ServiceVip(...), ...))  # the whole table, each time
    await platform.close()                       # Pods go on running

Behind it are a spawner (one process per mesh, `lateen.platform.spawner`) and one init per Pod
(`lateen.platform.init`), reached over Unix sockets under `layout.run`: `platform.sock` and `pods/<uid>/init.sock`.
Both speak JSON lines. An init sends the Pod's whole state on every change, the latest only, so a slow reader
never holds a Pod up and a reconnecting one misses nothing that still matters. There is no record of Pods apart from
the processes themselves and `pods/<uid>/{spec,pod}.json`.
"""
