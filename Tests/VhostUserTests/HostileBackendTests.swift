import HostSystem
import Testing
import VirtioSpec

@testable import VhostUser

/// What a back-end may get wrong while our front-end talks to it (HI section D, front-end rows).
@Suite struct HostileBackendTests {
    @Test(arguments: [0, 32769, 1 << 32, UInt64.max])
    func `HI-D62: an absurd queue count is refused and named`(count: UInt64) throws {
        let script = try ScriptedBackend { ScriptedBackend.good($0, queueCount: count) }
        do throws(FrontendError) {
            _ = try Frontend(script.socket, wish: FrontendWish(features: SessionRig.features))
            Issue.record("\(count) queues were believed")
        } catch {
            #expect(error.id == "vu/probe")
            #expect(error.description.contains("\(count)"))
        }
        script.finish()
    }

    @Test func `HI-D62: a ring beyond the back-end's queues is refused with both numbers`() throws {
        let script = try ScriptedBackend { ScriptedBackend.good($0) }
        let frontend = try Frontend(
            script.socket,
            wish: FrontendWish(features: SessionRig.features)
        )
        let ring = try FrontendRing(
            index: 2,
            size: 256,
            descriptorArea: 0,
            driverArea: 0x4000,
            deviceArea: 0x8000
        )
        do throws(FrontendError) {
            try frontend.start(ring)
            Issue.record("the ring was started")
        } catch {
            #expect(error.id == "vu/probe")
            #expect(error.description.contains("ring 2") && error.description.contains("1 queues"))
        }
        #expect(frontend.rings.isEmpty)
        script.finish()
    }

    private let wish = FrontendWish(features: SessionRig.features)

    private func failure(_ body: () throws(FrontendError) -> Void) -> FrontendError? {
        do {
            try body()
            return nil
        } catch {
            return error
        }
    }

    @Test(
        arguments: [
            "02000000 05000000 08000000 0000000000000000",  // another request
            "01000000 01000000 08000000 0000000000000000",  // no reply flag
            "01000000 06000000 08000000 0000000000000000",  // another version
            "01000000 15000000 08000000 0000000000000000",  // a reserved flag
            "01000000 05000000 04000000 00000000",  // too short
            "01000000 05000000 10000000 00000000000000000000000000000000",  // too long
            "01000000 05000000 00000000",  // empty
        ]
    )
    func `HI-D60, VU-F-05: a wrong reply closes the connection`(_ reply: String) throws {
        let script = try ScriptedBackend { _ in .bytes(bytes(reply)) }
        let error = failure { () throws(FrontendError) in
            _ = try Frontend(script.socket, wish: wish)
        }
        #expect(error?.id == "vu/reply")
        script.finish()
        #expect(script.requests == [1])
    }

    @Test func `HI-D60: descriptors with a reply are closed, and the connection`() throws {
        let reply = Message.reply(to: 1, payload: NumberPayload.encode(1 << 32))
        let script = try ScriptedBackend { _ in .withDescriptor(reply) }
        let error = failure { () throws(FrontendError) in
            _ = try Frontend(script.socket, wish: wish)
        }
        #expect(error?.id == "vu/reply")
        script.finish()
    }

    @Test func `HI-D60: GET_VRING_BASE answered for another ring closes the connection`() throws {
        let script = try ScriptedBackend { message in
            guard message.header.request == 11 else { return ScriptedBackend.good(message) }
            let other = VringState(index: 1, number: 0).encoded
            return .bytes(Message.reply(to: 11, payload: other))
        }
        let frontend = try Frontend(script.socket, wish: wish)
        let error = failure { () throws(FrontendError) in _ = try frontend.stop(0) }
        #expect(error?.id == "vu/reply")
        #expect(!frontend.checkConnection())
        script.finish()
    }

    @Test func `HI-D60: GET_VRING_BASE beyond 16 bits closes the connection`() throws {
        let script = try ScriptedBackend { message in
            guard message.header.request == 11 else { return ScriptedBackend.good(message) }
            let base = VringState(index: 0, number: 0x1_0000).encoded
            return .bytes(Message.reply(to: 11, payload: base))
        }
        let frontend = try Frontend(script.socket, wish: wish)
        let error = failure { () throws(FrontendError) in _ = try frontend.stop(0) }
        #expect(error?.id == "vu/reply")
        script.finish()
    }

    @Test func `VU-F-06: the number in a GET_VRING_BASE request is 0`() throws {
        let script = try ScriptedBackend { message in
            guard message.header.request == 11 else { return ScriptedBackend.good(message) }
            return .bytes(Message.reply(to: 11, payload: message.payload))
        }
        let frontend = try Frontend(script.socket, wish: wish)
        #expect(try frontend.stop(3) == 0)
        script.finish()
    }

    @Test func `HI-D61, VU-F-05: a reply that never comes ends the wait at the deadline`() throws {
        let script = try ScriptedBackend { _ in .nothing }
        var impatient = wish
        impatient.replyMilliseconds = 30
        let error = failure { () throws(FrontendError) in
            _ = try Frontend(script.socket, wish: impatient)
        }
        #expect(error?.id == "vu/stall")
        script.finish()
    }

    @Test func `HI-D61: a reply byte by byte ends the wait at the deadline too`() throws {
        let reply = Message.reply(to: 1, payload: NumberPayload.encode(1 << 32))
        let script = try ScriptedBackend { _ in .oneByteAtATime(reply, milliseconds: 10) }
        var impatient = wish
        impatient.replyMilliseconds = 50
        let began = MonotonicClock.now
        let error = failure { () throws(FrontendError) in
            _ = try Frontend(script.socket, wish: impatient)
        }
        #expect(error?.id == "vu/stall")
        #expect(MonotonicClock.now - began >= 50_000_000)
        script.finish()
    }

    @Test func `HI-D61, HI-I6: a caller that gives up does not wait for the deadline`() throws {
        let script = try ScriptedBackend { _ in .nothing }
        let cancel = try EventFD()
        cancel.signal()
        let began = MonotonicClock.now
        let error = failure { () throws(FrontendError) in
            _ = try Frontend(script.socket, wish: wish, cancel: cancel.descriptor)
        }
        guard case .cancelled = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(MonotonicClock.now - began < 5_000_000_000)
        script.finish()
    }

    @Test func `HI-D63, HI-I8: a back-end that lost features is refused with the list`() throws {
        let earlier = Frontend.Identity(
            features: SessionRig.features.union([.vhostUserProtocol, .ringPacked]),
            protocolFeatures: [.replyAcknowledge, .multiqueue, .status],
            queueCount: 2
        )
        let script = try ScriptedBackend { ScriptedBackend.good($0) }
        let error = failure { () throws(FrontendError) in
            _ = try Frontend(script.socket, wish: wish, expecting: earlier)
        }
        guard case .featureLoss(let list) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(
            list == [
                "feature bits [34]", "protocol features 0x10000", "queue count 2 became 1",
            ]
        )
        #expect(!script.requests.contains(2))
        script.finish()
    }

    @Test func `a back-end that gained features is taken`() throws {
        let earlier = Frontend.Identity(
            features: [.version1],
            protocolFeatures: [.replyAcknowledge],
            queueCount: 1
        )
        let script = try ScriptedBackend { ScriptedBackend.good($0) }
        let frontend = try Frontend(script.socket, wish: wish, expecting: earlier)
        #expect(frontend.identity.losses(since: frontend.identity).isEmpty)
        script.finish()
    }
}
