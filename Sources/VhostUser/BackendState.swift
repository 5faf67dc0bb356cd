internal import HostSystem
public import VirtioSpec

/// All that one front-end has said so far. A value: a request is tried on a copy, which replaces the
/// original only when all of it is right and nobody uses what it takes away.
public struct BackendState: Sendable {
    /// How a request is answered once it has been carried out.
    enum Answer: Equatable {
        /// With an acknowledgement, if one was asked for.
        case acknowledgement
        /// With a number of 64 bits.
        case number(UInt64)
        /// With a ring's next available index, asked for after the ring has stopped.
        case base(ring: Int)
    }

    /// What was offered to this front-end.
    var offer: BackendOffer
    /// Features it acknowledged.
    public internal(set) var features: FeatureBits = []
    /// SET_FEATURES came and was accepted.
    public internal(set) var hasFeatures = false
    /// GET_FEATURES came, so that the offer can no longer change.
    var wasAskedForFeatures = false
    /// A refused SET_FEATURES, which FEATURES_OK must not hide (virtio 1.3 §2.1).
    var refusedFeatures = false
    /// Protocol features it acknowledged.
    public internal(set) var protocolFeatures: ProtocolFeatures = []
    /// Its memory.
    public internal(set) var memory = RegionTable()
    /// Its rings.
    public internal(set) var rings: [RingState]
    /// The device status it set.
    public internal(set) var status: DeviceStatus = []

    init(offer: BackendOffer) {
        self.offer = offer
        rings = Array(repeating: RingState(), count: offer.ringCount)
    }

    /// The snapshot for the device.
    public var description: PeerDescription {
        let known = rings.enumerated().compactMap { index, ring in
            ring.description(index: index, memory: memory)
        }
        return PeerDescription(features: features, regions: memory.regions, rings: known)
    }

    /// True when a request's gate is open (HI-D6).
    func isOpen(_ gate: MessageRule.Gate) -> Bool {
        switch gate {
        case .open: true
        case .protocolFeature(let needed): protocolFeatures.contains(needed)
        case .feature(let needed): features.contains(needed)
        case .vhostUserProtocol: !hasFeatures || features.contains(.vhostUserProtocol)
        case .otherDevice: false
        }
    }

    /// Error descriptors of rings that are started and whose addresses do not resolve (VU-B-17).
    func unresolvable() -> [Int] {
        rings.indices.filter { rings[$0].isStarted && rings[$0].isUnresolvable(in: memory) }
    }

    /// Carries out one request whose id, gate, size and descriptors have been checked.
    mutating func perform(
        _ request: Request,
        _ payload: [UInt8],
        _ descriptors: [FileDescriptor]
    ) throws(RequestRefusal) -> Answer {
        switch request {
        case .getFeatures:
            wasAskedForFeatures = true
            return .number(offer.offeredFeatures.rawValue)
        case .setFeatures: try setFeatures(try number(payload))
        case .getProtocolFeatures: return .number(offer.protocolFeatures.rawValue)
        case .setProtocolFeatures: try setProtocolFeatures(try number(payload))
        // Neither an owner nor the end of one means anything to a socket with one user.
        case .setOwner, .resetOwner: break
        case .getQueueCount: return .number(UInt64(offer.queuePairs))
        case .setMemoryTable: try setMemory(payload, descriptors)
        case .getMemorySlots: return .number(UInt64(offer.memorySlots))
        case .addRegion: try addRegion(payload, descriptors)
        case .removeRegion: try removeRegion(payload)
        case .setVringSize: try setSize(try state(payload))
        case .setVringAddress: try setAddress(payload)
        case .setVringBase: try setBase(try state(payload))
        case .getVringBase: return .base(ring: try stop(try state(payload)))
        case .setVringKick: try setKick(payload, descriptors)
        case .setVringCall: try setCall(payload, descriptors)
        case .setVringError: try setError(payload, descriptors)
        case .setVringEnable: try enable(try state(payload))
        case .resetDevice: reset()
        case .setStatus: try setStatus(try number(payload))
        case .getStatus: return .number(UInt64(visibleStatus.rawValue))
        default:
            // Its gate is a feature that is never offered; reaching this would be our defect.
            throw RequestRefusal(
                .notNegotiated,
                "not supported: request \(request.rawValue)",
                otherwise: .goOn
            )
        }
        return .acknowledgement
    }

    func number(_ payload: [UInt8]) throws(RequestRefusal) -> UInt64 {
        guard let value = NumberPayload.decode(payload) else { throw wrongSize(payload) }
        return value
    }

    func state(_ payload: [UInt8]) throws(RequestRefusal) -> VringState {
        guard let value = VringState(payload) else { throw wrongSize(payload) }
        return value
    }

    func wrongSize(_ payload: [UInt8]) -> RequestRefusal {
        RequestRefusal(.size, "\(payload.count) payload bytes")
    }
}

// MARK: - Features and status

extension BackendState {
    private mutating func setFeatures(_ value: UInt64) throws(RequestRefusal) {
        let new = FeatureBits(rawValue: value)
        let foreign = new.subtracting(offer.offeredFeatures)
        guard foreign.isEmpty else {
            throw RequestRefusal(.features, "bits \(foreign.bits) were not offered")
        }
        let missing = offer.requiredFeatures.subtracting(new)
        guard missing.isEmpty else {
            throw RequestRefusal(.features, "bits \(missing.bits) are required")
        }
        // QEMU repeats the same value for every queue pair, also while the first one works.
        guard new == features || !rings.contains(where: \.isStarted) else {
            throw RequestRefusal(.features, "features change while a ring is started")
        }
        features = new
        hasFeatures = true
        refusedFeatures = false
        guard !new.contains(.vhostUserProtocol) else { return }
        for index in rings.indices { rings[index].isEnabled = true }
    }

    private mutating func setProtocolFeatures(_ value: UInt64) throws(RequestRefusal) {
        let new = ProtocolFeatures(rawValue: value)
        guard !new.lacksCompanions else {
            throw RequestRefusal(
                .features,
                "in-band notifications need back-end requests and acknowledgements",
                alwaysCloses: true
            )
        }
        let foreign = new.subtracting(offer.protocolFeatures)
        guard foreign.isEmpty else {
            throw RequestRefusal(
                .features,
                "protocol features \(foreign) were not offered",
                alwaysCloses: true
            )
        }
        protocolFeatures = new
    }

    /// Resets the device: rings stop and are disabled; memory and descriptors stay (VU-B-11).
    private mutating func reset() {
        for index in rings.indices {
            rings[index].stop()
            rings[index].isEnabled = false
        }
        status = []
    }

    private mutating func setStatus(_ value: UInt64) throws(RequestRefusal) {
        guard let byte = UInt8(exactly: value) else {
            throw RequestRefusal(.status, "\(hex(value)) is more than a byte", otherwise: .goOn)
        }
        let new = DeviceStatus(rawValue: byte)
        guard !new.isEmpty else {
            reset()
            refusedFeatures = false
            return
        }
        guard new.isSuperset(of: status) else {
            throw RequestRefusal(.status, "\(new) takes back part of \(status)", otherwise: .goOn)
        }
        status = new
    }

    /// The status as the front-end may read it: FEATURES_OK does not stand on refused features.
    private var visibleStatus: DeviceStatus {
        refusedFeatures ? status.subtracting(.featuresOK) : status
    }
}

// MARK: - Memory

extension BackendState {
    private mutating func setMemory(
        _ payload: [UInt8],
        _ descriptors: [FileDescriptor]
    ) throws(RequestRefusal) {
        guard let table = MemoryTablePayload(payload) else { throw wrongSize(payload) }
        do {
            try replaceMemory(by: try RegionTable(table, descriptors))
        } catch {
            throw RequestRefusal(error)
        }
    }

    private mutating func addRegion(
        _ payload: [UInt8],
        _ descriptors: [FileDescriptor]
    ) throws(RequestRefusal) {
        guard let region = SingleRegionPayload(payload) else { throw wrongSize(payload) }
        guard let descriptor = descriptors.first else {
            throw RequestRefusal(.descriptors, "ADD_MEM_REG without a descriptor")
        }
        var next = memory
        do {
            try next.add(region, descriptor, slots: offer.memorySlots)
            try replaceMemory(by: next)
        } catch {
            throw RequestRefusal(error)
        }
    }

    private mutating func removeRegion(_ payload: [UInt8]) throws(RequestRefusal) {
        guard let region = SingleRegionPayload(payload) else { throw wrongSize(payload) }
        var next = memory
        do {
            try next.remove(region)
            try replaceMemory(by: next)
        } catch {
            throw RequestRefusal(error)
        }
    }

    /// Puts a table in force, unless it leaves out a ring that works (HI-D16).
    private mutating func replaceMemory(by next: RegionTable) throws(Violation) {
        for (index, ring) in rings.enumerated() where ring.isStarted && ring.isEnabled {
            guard let areas = try? ring.areas(in: memory) else { continue }
            let new = try ring.areas(in: next)
            guard new != nil else {
                throw Violation(
                    .ringArea,
                    "ring \(index) at \(hex(areas.descriptorArea)) loses its memory"
                )
            }
        }
        memory = next
    }
}
