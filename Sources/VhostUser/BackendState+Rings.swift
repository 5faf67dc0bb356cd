internal import CSystemShims
internal import HostSystem

// Requests about one ring. Whatever the order they come in, each is checked against what is known
// by then and kept until the rest has come (HI-D37).
extension BackendState {
    mutating func setSize(_ request: VringState) throws(RequestRefusal) {
        let index = try ring(request.index)
        try mustNotWork(index, "SET_VRING_NUM")
        guard let size = UInt16(exactly: request.number), size > 0,
            size <= offer.maximumRingSize, size & (size - 1) == 0
        else {
            throw RequestRefusal(
                .ringSize,
                "\(request.number) descriptors; a power of two up to \(offer.maximumRingSize)"
            )
        }
        rings[index].size = size
    }

    mutating func setAddress(_ payload: [UInt8]) throws(RequestRefusal) {
        guard let request = VringAddress(payload) else { throw wrongSize(payload) }
        let index = try ring(request.index)
        try mustNotWork(index, "SET_VRING_ADDR")
        guard request.flags == 0 else {
            throw RequestRefusal(.notNegotiated, "flags \(request.flags) of SET_VRING_ADDR")
        }
        let aligned =
            request.descriptorArea % 16 == 0 && request.driverArea % 2 == 0
            && request.deviceArea % 4 == 0
        guard aligned else {
            throw RequestRefusal(
                .ringAlignment,
                "descriptors at \(hex(request.descriptorArea)), available ring at"
                    + " \(hex(request.driverArea)), used ring at \(hex(request.deviceArea))"
            )
        }
        rings[index].addresses = request
        do {
            _ = try rings[index].areas(in: memory)
        } catch {
            throw RequestRefusal(error)
        }
    }

    mutating func setBase(_ request: VringState) throws(RequestRefusal) {
        let index = try ring(request.index)
        try mustNotWork(index, "SET_VRING_BASE")
        guard let base = UInt16(exactly: request.number) else {
            throw RequestRefusal(.ringBase, "\(request.number); a split ring has 16 bits")
        }
        rings[index].base = base
    }

    /// Stops a ring for GET_VRING_BASE. There is no answer that says no, so an index that is wrong
    /// closes the connection: its sender waits.
    mutating func stop(_ request: VringState) throws(RequestRefusal) -> Int {
        let index = try ring(request.index)
        rings[index].stop()
        return index
    }

    mutating func enable(_ request: VringState) throws(RequestRefusal) {
        let index = try ring(request.index)
        guard request.number <= 1 else {
            throw RequestRefusal(.value, "SET_VRING_ENABLE \(request.number); 0 or 1 is possible")
        }
        rings[index].isEnabled = request.number == 1
    }

    mutating func setKick(
        _ payload: [UInt8],
        _ descriptors: [FileDescriptor]
    ) throws(RequestRefusal) {
        let (index, kick) = try notifier(payload, descriptors)
        rings[index].kick = kick
        rings[index].isStarted = true
    }

    mutating func setCall(
        _ payload: [UInt8],
        _ descriptors: [FileDescriptor]
    ) throws(RequestRefusal) {
        let (index, call) = try notifier(payload, descriptors)
        rings[index].call = call
    }

    mutating func setError(
        _ payload: [UInt8],
        _ descriptors: [FileDescriptor]
    ) throws(RequestRefusal) {
        let (index, error) = try notifier(payload, descriptors)
        rings[index].error = error
    }

    /// A ring index, compared in full width (HI-D18, VU-B-16).
    private func ring(_ index: some UnsignedInteger) throws(RequestRefusal) -> Int {
        guard let number = Int(exactly: index), rings.indices.contains(number) else {
            throw RequestRefusal(.ringIndex, "ring \(index) of \(rings.count)")
        }
        return number
    }

    /// Rings are set up while nobody works on them (HI-D20, HI-D21).
    private func mustNotWork(_ index: Int, _ name: String) throws(RequestRefusal) {
        let ring = rings[index]
        guard ring.isStarted, ring.description(index: index, memory: memory) != nil else { return }
        throw RequestRefusal(.order, "\(name) while ring \(index) is started")
    }

    /// The ring and the descriptor of a kick, call or error message; no descriptor where the payload
    /// says so (HI-D23).
    private func notifier(
        _ payload: [UInt8],
        _ descriptors: [FileDescriptor]
    ) throws(RequestRefusal) -> (Int, FileDescriptor?) {
        guard let request = VringDescriptor(payload) else { throw wrongSize(payload) }
        let index = try ring(request.index)
        guard descriptors.count == (request.hasDescriptor ? 1 : 0) else {
            throw RequestRefusal(
                .descriptors,
                "\(descriptors.count) descriptors, marked as "
                    + (request.hasDescriptor ? "having one" : "having none")
            )
        }
        guard let descriptor = descriptors.first else { return (index, nil) }
        guard descriptor.isEventFD else {
            throw RequestRefusal(
                .descriptorKind,
                "kick, call and error descriptors must be eventfds"
            )
        }
        // A full counter must not hold up whoever signals (HI-D25).
        _ = shim_set_nonblocking(descriptor.rawValue, 1)
        return (index, descriptor)
    }
}
