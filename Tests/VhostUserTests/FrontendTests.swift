import Glibc
import HostSystem
import Testing
import VirtioSpec

@testable import VhostUser

@Suite struct FrontendTests {
    private let wish = FrontendWish(features: SessionRig.features)

    private func ring(_ index: Int) throws -> FrontendRing {
        let start = UInt64(index) * 0x10000
        return try FrontendRing(
            index: index,
            size: 256,
            descriptorArea: start,
            driverArea: start + 0x4000,
            deviceArea: start + 0x8000
        )
    }

    private func failure(_ body: () throws(FrontendError) -> Void) -> FrontendError? {
        do {
            try body()
            return nil
        } catch {
            return error
        }
    }

    @Test func `VU-F-02: our front-end brings up our back-end, stops it and goes`() throws {
        let server = try ServingThread(positions: [0: 17, 1: 65535])
        let frontend = try Frontend.connect(to: server.path, wish: wish)
        #expect(frontend.features == SessionRig.features)
        #expect(frontend.protocolFeatures == .served)
        #expect(frontend.identity.queueCount == 1)
        let file = try MemoryFile(name: "front", size: 1 << 20)
        try frontend.share([FrontendRegion(file, guestAddress: 0)])
        let rings = [try ring(0), try ring(1)]
        for ring in rings { try frontend.start(ring) }
        for ring in rings { try frontend.setEnabled(ring.index, true) }
        try frontend.driverReady()
        let isUp = server.wait { $0.snapshots.last?.rings.filter(\.isEnabled).count == 2 }
        #expect(isUp)
        let peer = try #require(server.seen.snapshots.last)
        #expect(peer.rings.allSatisfy { $0.isStarted && $0.error != nil })
        #expect(peer.regions[0].size == 1 << 20)
        #expect(try frontend.stop(0) == 17)
        #expect(try frontend.stop(1) == 65535)
        #expect(frontend.checkConnection())
        frontend.close()
        let isOver = server.wait { $0.ends.count == 1 }
        #expect(isOver)
        server.finish()
        #expect(server.seen.refusals.isEmpty)
        #expect(server.seen.ends == [.closed])
    }

    @Test func `VU-F-04: a started ring is kicked once`() throws {
        let server = try ServingThread()
        let frontend = try Frontend.connect(to: server.path, wish: wish)
        let file = try MemoryFile(name: "front", size: 1 << 20)
        try frontend.share([FrontendRegion(file, guestAddress: 0)])
        let ring = try ring(0)
        try frontend.start(ring)
        #expect(ring.kick.drain() == 1)
        server.finish()
    }

    @Test func `memory slots: regions come and go one by one`() throws {
        let server = try ServingThread()
        let frontend = try Frontend.connect(to: server.path, wish: wish)
        let files = try (0..<3).map { try MemoryFile(name: "slot\($0)", size: 4096) }
        let regions = files.enumerated().map {
            FrontendRegion($1, guestAddress: UInt64($0) << 30)
        }
        for region in regions { try frontend.add(region) }
        let overlapping = failure { () throws(FrontendError) in try frontend.add(regions[1]) }
        guard case .refused(request: "ADD_MEM_REG", answer: 1) = overlapping else {
            Issue.record("\(String(describing: overlapping))")
            return
        }
        try frontend.remove(regions[1])
        let isThere = server.wait { $0.snapshots.last?.regions.count == 2 }
        #expect(isThere)
        #expect(frontend.regions.count == 2)
        server.finish()
    }

    @Test func `reset stops the rings and keeps the memory`() throws {
        let server = try ServingThread()
        let frontend = try Frontend.connect(to: server.path, wish: wish)
        let file = try MemoryFile(name: "front", size: 1 << 20)
        try frontend.share([FrontendRegion(file, guestAddress: 0)])
        try frontend.start(try ring(0))
        try frontend.setEnabled(0, true)
        let isUp = server.wait { $0.snapshots.last?.rings.first?.isEnabled == true }
        #expect(isUp)
        try frontend.reset()
        let isStopped = server.wait { log in
            log.quiesceCount == 1
                && log.snapshots.last?.rings.allSatisfy { !$0.isStarted } == true
        }
        #expect(isStopped)
        let peer = try #require(server.seen.snapshots.last)
        #expect(peer.regions.count == 1)
        #expect(peer.rings.allSatisfy { !$0.isStarted })
        server.finish()
    }

    @Test func `VU-F-01: only features that were offered are acknowledged`() throws {
        let offer = BackendOffer(features: [.version1, .netMAC])
        let server = try ServingThread(offer: offer)
        let frontend = try Frontend.connect(to: server.path, wish: wish)
        #expect(frontend.features == [.version1, .netMAC])
        server.finish()
        #expect(server.seen.refusals.isEmpty)
    }

    @Test func `VU-F-01: unknown bits of an offer are masked out`() throws {
        let script = try ScriptedBackend {
            ScriptedBackend.good($0, features: .max, protocolFeatures: .max)
        }
        let frontend = try Frontend(script.socket, wish: wish)
        #expect(frontend.features == SessionRig.features)
        #expect(frontend.protocolFeatures == .used)
        script.finish()
    }

    @Test func `VU-F-03: requests of features that are not there are not sent`() throws {
        let script = try ScriptedBackend {
            ScriptedBackend.good($0, features: 1 << 32, protocolFeatures: 0)
        }
        let frontend = try Frontend(script.socket, wish: wish)
        let file = try MemoryFile(name: "front", size: 4096)
        let added = failure { () throws(FrontendError) in
            try frontend.add(FrontendRegion(file, guestAddress: 0))
        }
        #expect(added?.id == "vu/not-negotiated")
        try frontend.setEnabled(0, true)
        try frontend.driverReady()
        let gated: [UInt32] = [15, 16, 17, 18, 34, 36, 37, 38, 39, 40]
        #expect(script.requests.allSatisfy { !gated.contains($0) })
        #expect(script.requests.filter { $0 == 1 }.count == 2, "one to ask, one to wait")
        script.finish()
    }

    @Test func `features that are required and missing end the handshake`() throws {
        let script = try ScriptedBackend { ScriptedBackend.good($0, features: 1 << 30) }
        let error = failure { () throws(FrontendError) in
            _ = try Frontend(script.socket, wish: wish)
        }
        guard case .missingFeatures([.version1]) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(!script.requests.contains(2))
        script.finish()
    }

    @Test func `HI-D66: a signalled error descriptor shows its ring as broken`() throws {
        let server = try ServingThread()
        let frontend = try Frontend.connect(to: server.path, wish: wish)
        let file = try MemoryFile(name: "front", size: 1 << 20)
        try frontend.share([FrontendRegion(file, guestAddress: 0)])
        for index in 0..<2 { try frontend.start(try ring(index)) }
        try frontend.setEnabled(1, true)
        #expect(frontend.takeBrokenRings().isEmpty)
        let isUp = server.wait { $0.snapshots.last?.rings.filter(\.isStarted).count == 2 }
        #expect(isUp)
        let error = try #require(server.seen.snapshots.last?.rings[1].error)
        EventFD.signal(error.rawValue)
        #expect(frontend.takeBrokenRings() == [1])
        #expect(frontend.takeBrokenRings().isEmpty)
        server.finish()
    }

    @Test func `HI-I1: the end of the back-end is seen at its descriptor`() throws {
        let server = try ServingThread()
        let frontend = try Frontend.connect(to: server.path, wish: wish)
        #expect(frontend.checkConnection())
        server.finish()
        let loop = try EventLoop()
        var wasReady = false
        try loop.watch(frontend.descriptor) { wasReady = true }
        try loop.turn(limitMilliseconds: 1000)
        #expect(wasReady)
        #expect(!frontend.checkConnection())
        let error = failure { () throws(FrontendError) in try frontend.reset() }
        guard case .closed(during: "RESET_DEVICE") = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    @Test func `HI-I4: a back-end that dies in the handshake leads to another attempt`() throws {
        let path = uniquePath()
        let first = try UnixListener(path: path)
        let dying = try PollingThread(name: "dying") {
            var left = 2
            while left > 0 {
                // Accepts and drops: the first message finds nobody.
                if (try? first.accept()) ?? nil != nil { left -= 1 }
                usleep(200)
            }
        }
        var patient = wish
        patient.connectMilliseconds = 5000
        let script = try PollingThread(name: "living") {
            dying.join()
            let server = Answering(first)
            server.run()
        }
        let frontend = try Frontend.connect(to: path, wish: patient)
        #expect(frontend.features == SessionRig.features)
        frontend.close()
        script.join()
    }

    @Test(arguments: [nil, 60] as [UInt64?])
    func `HI-D61: the connect deadline holds for the whole handshake`(pause: UInt64?) throws {
        let slow = try ScriptedBackend { message in
            guard let pause, case .bytes(let bytes) = ScriptedBackend.good(message) else {
                return .nothing
            }
            usleep(UInt32(pause) * 1000)
            return .bytes(bytes)
        }
        var impatient = wish
        impatient.connectMilliseconds = 150
        impatient.replyMilliseconds = 5000
        let began = MonotonicClock.now
        let error = failure { () throws(FrontendError) in
            _ = try Frontend(slow.socket, wish: impatient)
        }
        #expect(error?.id == "vu/stall")
        #expect(MonotonicClock.now - began < 1_500_000_000)
        slow.finish()
    }

    @Test func `HI-D61: a back-end that never answers ends connect at its deadline`() throws {
        let path = uniquePath()
        let silent = try UnixListener(path: path)
        var impatient = wish
        impatient.connectMilliseconds = 100
        impatient.replyMilliseconds = 5000
        let began = MonotonicClock.now
        let error = failure { () throws(FrontendError) in
            _ = try Frontend.connect(to: path, wish: impatient)
        }
        withExtendedLifetime(silent) {}
        #expect(error?.id == "vu/stall")
        #expect(MonotonicClock.now - began < 1_500_000_000)
    }

    @Test func `nobody at the path ends the attempts at the deadline`() {
        var impatient = wish
        impatient.connectMilliseconds = 60
        let path = uniquePath()
        let began = MonotonicClock.now
        let error = failure { () throws(FrontendError) in
            _ = try Frontend.connect(to: path, wish: impatient)
        }
        guard case .system(let cause) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(cause.errno == .noSuchFile)
        #expect(MonotonicClock.now - began >= 60_000_000)
    }
}

/// A faultless back-end for one front-end of a listener.
private struct Answering: Sendable {
    let listener: UnixListener

    init(_ listener: UnixListener) {
        self.listener = listener
    }

    func run() {
        var socket: UnixSocket?
        while socket == nil {
            socket = (try? listener.accept()) ?? nil
            usleep(200)
        }
        guard let socket else { return }
        let connection = Connection(socket)
        while true {
            switch connection.receive() {
            case .message(let message):
                guard case .bytes(let bytes) = ScriptedBackend.good(message) else { continue }
                _ = connection.send(bytes)
            case .waiting: usleep(200)
            case .closed, .violation: return
            }
        }
    }
}
